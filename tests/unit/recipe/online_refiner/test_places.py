"""Where response tokens stand among packed ones, worked out by hand."""

import torch
from tensordict import TensorDict

from recipe.online_refiner.update.places import response_places


def test_a_state_is_one_place_to_the_left_of_its_token() -> None:
    """Prompts of 2 and 1 tokens, responses of 3 and 2: p p r r r p r r."""
    jagged = {"input_ids": [5, 3], "refine_weight": [3, 2]}
    fields = {
        name: torch.nested.as_nested_tensor(
            [torch.zeros(length) for length in lengths], layout=torch.jagged
        )
        for name, lengths in jagged.items()
    }
    data = TensorDict(fields, batch_size=2)
    places = response_places(data, "refine_weight")
    assert places.state_M.tolist() == [1, 2, 3, 5, 6]
    assert places.row_M.tolist() == [0, 0, 0, 1, 1]
