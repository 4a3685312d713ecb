"""`python -m recipe.evaluation`."""

from recipe.evaluation.main import main

if __name__ == "__main__":
    raise SystemExit(main())
