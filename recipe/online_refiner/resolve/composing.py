"""A command whose config Hydra composes of its arguments, and what is said if that fails.

Hydra ends in a traceback if a group is given something that is no name (`experiment=null`), and its
other messages offer what this project refuses afterwards. `composed` puts our own in their place:
key, value and fix. With HYDRA_FULL_ERROR=1 in the environment Hydra's are shown as they are.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from recipe.online_refiner.experiments import CONFIG
from recipe.online_refiner.resolve.key_faults import OWN_SECTIONS
from recipe.online_refiner.resolve.verl_keys import KINDS

EXIT_BAD_CONFIG = 2
FULL_ERROR = "HYDRA_FULL_ERROR"
"""With 1 Hydra raises what it would print."""
SEVERAL_RUNS = ("-m", "--multirun")
CHOSEN_OF_VERL = "model_engine"
"""The one group of verl's that is chosen by its name alone."""


def refusal(faults: Iterable[str]) -> str:
    """What is printed if a run cannot start."""
    return "\n".join(["The configuration cannot run:", *(f"- {fault}" for fault in faults)])


def composed(run: Callable[[DictConfig], None]) -> Callable[[], None]:
    """`run` as a command: its config is composed of the command line, or refused with status 2."""

    @hydra.main(config_path=str(CONFIG), config_name="online_refiner", version_base=None)
    @functools.wraps(run)
    def begun(config: DictConfig) -> None:
        os.environ.pop(FULL_ERROR, None)  # a failure of the run itself is Hydra's to print
        run(config)

    @functools.wraps(run)
    def command() -> None:
        if os.environ.get(FULL_ERROR) == "1":
            begun()
            return
        _refuse(list(argument_faults(sys.argv[1:])))
        os.environ[FULL_ERROR] = "1"
        try:
            begun()
        except Exception as error:  # Hydra raises errors of many kinds while it composes
            if os.environ.pop(FULL_ERROR, None) is None:
                raise
            _refuse([composition_fault(error, sys.argv[1:])])

    return command


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        print(refusal(faults), file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)


def argument_faults(arguments: Sequence[str]) -> Iterator[str]:
    """A sentence for each argument that cannot be read, or that chooses no file of its group."""
    several = any(option in arguments for option in SEVERAL_RUNS)
    for argument in _assignments(arguments):
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            yield f"{argument}: {_first_line(error)}. Fix: {_readable(argument)}"
            continue
        if override.is_sweep_override():
            if not several:
                yield _several(argument, override)
        elif not override.key_or_group:
            yield f"{argument}: no key is before the sign. Fix: KEY=VALUE"
        else:
            yield from _choice_faults(override)


def _assignments(arguments: Iterable[str]) -> Iterator[str]:
    """The arguments without Hydra's options, as far as they can be told from their values."""
    return (one for one in arguments if not one.startswith("-") and "=" in one)


def _readable(argument: str) -> str:
    if argument.partition("=")[2].startswith("~"):
        return "$HOME in place of ~"
    return (
        "KEY=VALUE, and a value with spaces, commas, brackets or quotes between quotes of its own"
    )


def _several(argument: str, override: Override) -> str:
    key, _, values = argument.partition("=")
    if choices_of(override.key_or_group):
        return f"{argument}: it takes the name of one file. Fix: one command for each"
    return f"{argument}: several values. Fix: '{key}=[{values}]' for a list, or one of them"


def _choice_faults(override: Override) -> Iterator[str]:
    """Whether the value chooses one file, if the key is a group; which files there are comes later.

    A folder of the user's own may have more (`--config-dir`).
    """
    group = override.key_or_group
    value = None if override.is_delete() else override.value()
    if override.is_delete() or not any((folder / group).is_dir() for folder in _folders()):
        return
    if isinstance(value, str) and value.strip():
        return
    if _is_section(override):
        yield _section_fault(override)
    else:
        out = "leave it out, or " if value in (None, "") else ""
        yield (
            f"{override.input_line}: it takes the name of one file. Fix: {out}one of "
            f"{', '.join(choices_of(group))}"
        )


def _is_section(override: Override) -> bool:
    """Whether a group is chosen for sections of the config only, as verl chooses its files."""
    group = override.key_or_group
    return override.package is None and group != CHOSEN_OF_VERL and not _files(CONFIG / group)


def _section_fault(override: Override) -> str:
    keys = [key for key in KINDS if key.startswith(f"{override.key_or_group}.")]
    such = f", such as {keys[0]}=…" if keys else ""
    return f"{override.input_line}: it is a section of keys. Fix: set the keys below it{such}"


def choices_of(group: str) -> list[str]:
    """The files of a group of ours, else of verl's or Hydra's; none if there is no such group."""
    return next(filter(None, (_files(folder / group) for folder in _folders())), [])


def _folders() -> list[Path]:
    """Where the groups' files are, ours first."""
    below = {"verl": "trainer/config", "hydra": "conf"}
    packages = [importlib.util.find_spec(name) for name in below]
    places = [place for one in packages for place in (one and one.submodule_search_locations) or ()]
    return [CONFIG, *map(Path, map(os.path.join, places, below.values()))]


def _files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def composition_fault(error: Exception, arguments: Sequence[str]) -> str:
    """The sentence on what Hydra raised while it composed the arguments."""
    first = _first_line(error)
    for argument in _assignments(arguments):
        override = OverridesParser.create().parse_override(argument)
        key = override.key_or_group
        if isinstance(error, MissingConfigException):
            group, _, name = str(error.missing_cfg_file).rpartition("/")
            if group and key == group and override.value() == name:
                return _missing(override, name, error.options or ())
        if first.startswith(f"Could not override '{override.get_key_element().lstrip('+')}'"):
            return _unknown(override)
    fix = "KEY=VALUE" if first.startswith("Error parsing") else "correct what it names"
    return f"{first}. Fix: {fix}"


def _missing(override: Override, name: str, options: Iterable[str]) -> str:
    if _is_section(override):
        return _section_fault(override)
    own = choices_of(override.key_or_group)
    theirs = {one for folder in _folders() for one in _files(folder / override.key_or_group)}
    known = [one for one in options if one in own or one not in theirs]  # a user's own among them
    near = _nearest(name, known)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{override.input_line}: there is no such file. Fix: {meant}one of {', '.join(known)}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """The names that a shortened one begins, or else the one that is most like it."""
    longer = [one for one in known if one.startswith(name)]
    return longer or difflib.get_close_matches(name, known, n=1)


def _unknown(override: Override) -> str:
    """The sentence on a key that the composed config lacks, or a group that nobody chose."""
    key, typed = override.key_or_group, override.input_line
    if choices_of(key):
        if _is_section(override):
            return _section_fault(override)
        return (
            f"{typed}: nothing that is chosen here has a file of {key} that this could replace. "
            f"Fix: leave it out, or another hardware group; +{typed} adds it"
        )
    if key in known_keys():  # verl reads it, and its own config has no line for it
        return f"{typed}: the config has no such key yet. Fix: +{typed} adds it"
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.8)
    meant = f"did you mean {near[0]}? If not, " if near else ""
    own = key.partition(".")[0] in OWN_SECTIONS
    other = "remove it" if own else f"+{typed} if verl reads such a key, else remove it"
    return f"{typed}: there is no such key. Fix: {meant}{other}"


def known_keys() -> list[str]:
    """The keys of our own sections, and those of verl that this project knows the type of."""
    own = yaml.safe_load((CONFIG / "online_refiner.yaml").read_text(encoding="utf-8"))
    return [*(key for name in OWN_SECTIONS for key in _below(name, own[name])), *KINDS]


def _below(name: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _below(f"{name}.{key}", below)
    else:
        yield name


def _first_line(error: BaseException) -> str:
    """What happened: the message, and why as OmegaConf says it."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else ""
    texts = [str(error), str(cause)]
    lines = [text.strip().splitlines()[0].strip() for text in texts if text.strip()]
    return ": ".join(dict.fromkeys(line.rstrip(".") for line in lines)) or type(error).__name__
