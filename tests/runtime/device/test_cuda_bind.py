"""Recipes become parameters: addresses, integers, tensor maps; what does not fit together is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from oi.runtime.cuda_library import (
    Buckets,
    Call,
    CudaLibrary,
    Descriptor,
    Int,
    Io,
    Kernel,
    Operand,
    Recipe,
    Scratch,
    WordCopy,
)
from oi.runtime.device.cuda.bind import Addresses, Binder, BoundCall, Part
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.graphs import Capture, Kernels
from oi.runtime.errors import ArtifactError
from oi.runtime.manifest import Buffer, File, Launch, Program, Variant
from tests.runtime.device.cuda_model import write_model
from tests.runtime.device.fake_cuda import FakeCuda

WEIGHTS, CONSTANTS, ARENA, KV, LOGITS, SCRATCH, TOKENS = (1 << 40 | i << 20 for i in range(7))
BUFFERS = {
    "w": Buffer("weight", "bf16", [8, 64], 512),
    "c": Buffer("constant", "f32", [4], 16),
    "h": Buffer("arena", "bf16", ["T", 64], 1024),
    "kv": Buffer("state", "bf16", ["N", 1, 2, 1, 4, 64]),
    "logits": Buffer("io", "f32", ["R", 8]),
    "tokens": Buffer("io", "i32", ["T"]),
}
PAGES = 7


def binder(tmp_path: Path, recipes: dict[str, Recipe], launches: list[Launch]) -> tuple[Binder, FakeCuda]:
    artifact, _ = write_model(tmp_path)
    manifest = replace(artifact.manifest, programs={"forward": Program(BUFFERS, launches)})
    library = CudaLibrary(Buckets([1], [4], [1]), WordCopy("copy_words", 8), {}, recipes, {"s": 64})
    cuda = FakeCuda({}, {})
    addresses = Addresses(WEIGHTS, CONSTANTS, ARENA, KV, {"logits": LOGITS}, {"s": SCRATCH})
    return Binder(Driver(cuda), manifest, library, addresses, PAGES), cuda


def launch(args: list[str | int], symbol: str = "k", rows: str = "T") -> Launch:
    return Launch("op", rows, [Variant(f"{symbol}_4", 4), Variant(f"{symbol}_any")], args)


def test_every_kind_of_parameter(tmp_path: Path) -> None:
    params = [
        Operand(0), Operand(1, 2), Operand(2), Operand(3), Operand(4), Operand(5),
        Int(-3), Int(1 << 40, 64), Io("logits"), Io("tokens"), Scratch("s", 8),
    ]  # fmt: skip
    call = Call("kernel", (1, 2, 3), params)
    bind, _ = binder(tmp_path, {"k_4": Recipe([call])}, [launch(["w", "c", "h", "kv", "tokens", 11])])
    part = bind.part("forward", "T", 4, {"tokens": TOKENS})
    values = (
        WEIGHTS + 512, CONSTANTS + 18, ARENA + 1024, KV, TOKENS, 11, -3, 1 << 40, LOGITS, TOKENS, SCRATCH + 8,
    )  # fmt: skip
    assert part == Part([], [BoundCall("kernel", (1, 2, 3), values)])


def test_the_bucket_picks_the_variant(tmp_path: Path) -> None:
    recipes = {name: Recipe([Call(name, (1, 1, 1), [])]) for name in ("k_4", "k_any")}
    bind, _ = binder(tmp_path, recipes, [launch([]), launch([], rows="R")])
    assert [c.kernel for c in bind.part("forward", "T", 4, {}).calls] == ["k_4"]
    assert [c.kernel for c in bind.part("forward", "T", 5, {}).calls] == ["k_any"]


def test_tensor_maps(tmp_path: Path) -> None:
    params = [Descriptor(0, [8, 64], [4, 32], 64), Descriptor(1, [2, 4, 64], [1, 4, 64], 128, pages=True)]
    again = Call("kernel", (1, 1, 1), [params[0]])
    recipe = Recipe([Call("kernel", (1, 1, 1), params), again])
    bind, cuda = binder(tmp_path, {"k_4": recipe}, [launch(["w", "kv"])])
    part = bind.part("forward", "T", 1, {})
    assert [len(p) if isinstance(p, bytes) else p for call in part.calls for p in call.params] == [128] * 3
    assert len(cuda.tensor_maps) == 2, "an equal map is encoded once"
    plain, paged = cuda.tensor_maps
    assert plain[1:7] == (2, WEIGHTS + 512, [64, 8], [128], [32, 4], [1, 1])
    assert plain[8] == "CU_TENSOR_MAP_SWIZZLE_64B"
    assert paged[1:7] == (3, KV, [64, 4, 2 * PAGES], [128, 512], [64, 4, 1], [1, 1, 1])


def test_equal_calls_of_the_prologue_are_one(tmp_path: Path) -> None:
    plan, other = Call("plan", (1, 1, 1), [Scratch("s")]), Call("other", (1, 1, 1), [Operand(0)])
    recipe = Recipe([Call("kernel", (1, 1, 1), [Operand(0)])], [plan, other])
    bind, _ = binder(tmp_path, {"k_4": recipe}, [launch(["w"]), launch(["h"])])
    part = bind.part("forward", "T", 1, {})
    assert [(c.kernel, c.params) for c in part.prologue] == [
        ("plan", (SCRATCH,)), ("other", (WEIGHTS + 512,)), ("other", (ARENA + 1024,)),
    ]  # fmt: skip
    assert len(part.calls) == 2


@pytest.mark.parametrize(
    ("params", "args"), [([Operand(1)], ["w"]), ([Io("rows")], ["w"]), ([Scratch("t")], ["w"]), ([], ["nothing"])]
)
def test_a_name_that_nobody_knows(tmp_path: Path, params: list[Operand], args: list[str | int]) -> None:
    bind, _ = binder(tmp_path, {"k_4": Recipe([Call("kernel", (1, 1, 1), [*params])])}, [launch(args)])
    with pytest.raises(ArtifactError, match=r"forward: op for T = 1 names .* compile the artifact again"):
        bind.part("forward", "T", 1, {})


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    bind, _ = binder(tmp_path, {}, [launch([])])
    with pytest.raises(ArtifactError, match="no op for T = 1"):
        bind.part("forward", "T", 1, {})


def test_what_a_kernel_is_passed(tmp_path: Path) -> None:
    """Values and maps in their slots, and two null pointers behind them, whatever was there before."""
    artifact, _ = write_model(tmp_path)
    artifact.manifest.files["k.cubin"] = File("", 0)
    library = CudaLibrary(
        Buckets([], [], []), WordCopy("copy_words", 8), {"k": Kernel("k.cubin", "entry", 32, 0, True)}, {}, {}
    )
    cuda = FakeCuda({}, {"entry": 3})
    driver = Driver(cuda)
    capture = Capture(driver, Kernels(driver, artifact, library), library, driver.stream())
    image = bytes(range(128))
    many = BoundCall("k", (1, 1, 1), (1, 2, 3, 4, 5, 6))
    capture.graph(Part([], [many, BoundCall("k", (4, 5, 6), (-1, image, 1 << 63))]))
    launched = cuda.graphs[0][1]
    assert (launched.grid, launched.dependent) == ((4, 5, 6), True)
    first, second, third, *scratch = launched.params
    assert first[:8] == b"\xff" * 8
    assert second == image
    assert third[:8] == (1 << 63).to_bytes(8, "little")
    assert [s[:8] for s in scratch] == [bytes(8)] * 2
