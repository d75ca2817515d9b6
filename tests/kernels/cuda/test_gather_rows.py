"""embedding and select_rows copy the rows that they are asked for."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, torch

# isort: split

from oi.codegen.cuda.tuning.rows_launch import embedding, select_rows

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 2560), (9, 1024), (5, 96)])
def test_rows_are_copied(rows: int, width: int) -> None:
    table = torch.randn(50, width, device=DEVICE, dtype=DTYPE)
    picked = torch.randint(0, 50, (rows,), device=DEVICE, dtype=torch.int32)
    for gather in (lambda y: embedding(picked, table, y), lambda y: select_rows(table, picked, y)):
        y = torch.full((rows, width), torch.nan, device=DEVICE, dtype=DTYPE)
        gather(y)
        assert torch.equal(y, table[picked.long()])


def test_a_negative_token_is_what_its_row_drew_before() -> None:
    table = torch.randn(50, 256, device=DEVICE, dtype=DTYPE)
    sampled = torch.randint(0, 50, (4,), device=DEVICE, dtype=torch.int32)
    tokens = torch.tensor([7, -1, -4, 0, -2], device=DEVICE, dtype=torch.int32)
    y = torch.full((5, 256), torch.nan, device=DEVICE, dtype=DTYPE)
    embedding(tokens, table, y, sampled)
    expected = [7, int(sampled[0]), int(sampled[3]), 0, int(sampled[1])]
    assert torch.equal(y, table[expected])
