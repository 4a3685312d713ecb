"""Orthogonalisation and the update made of it."""

from __future__ import annotations

import pytest
import torch

from recipe.cpu.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 16), (2, 16, 4)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    moved = left.transpose(1, 2) @ orthogonalise(matrices) @ right.transpose(1, 2)
    diagonal = torch.diagonal(moved, dim1=1, dim2=2)
    assert ((diagonal > 0.3) & (diagonal < 1.3)).all()
    assert torch.allclose(moved, torch.diag_embed(diagonal), atol=1e-3)


def test_the_scale_of_the_gradient_does_not_matter() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 4, 4)
    assert torch.allclose(orthogonalise(matrices), orthogonalise(1e3 * matrices), atol=1e-4)


def test_a_zero_gradient_stays_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 3)), torch.zeros(1, 3, 3))


def test_one_step_on_the_identity_goes_against_the_gradient_by_the_learning_rate() -> None:
    """0.2 * sqrt(4) * lr = 0.04 per unit of an orthogonal direction; no decay."""
    matrix = torch.nn.Parameter(torch.zeros(4, 4))
    matrix.grad = torch.eye(4)
    Muon([matrix], lr=0.1, weight_decay=0.0).step()
    off_diagonal = matrix.detach() - torch.diag(torch.diagonal(matrix.detach()))
    assert off_diagonal.abs().max() < 1e-6
    assert torch.allclose(torch.diagonal(matrix.detach()), torch.full((4,), -0.04), rtol=0.3)


def test_weights_decay_where_the_gradient_is_zero() -> None:
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    matrix.grad = torch.zeros(2, 2)
    Muon([matrix], lr=0.5, weight_decay=0.1).step()
    assert torch.allclose(matrix.detach(), torch.full((2, 2), 0.95))


def test_a_least_squares_problem_is_solved() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 3)
    matrix = torch.nn.Parameter(torch.zeros(6, 3))
    optimizer = Muon([matrix], lr=0.1, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        ((matrix - target) ** 2).sum().backward()
        optimizer.step()
    assert (matrix - target).abs().max() < 0.05
