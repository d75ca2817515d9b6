"""Barriers of a ring of shared memory that one warp of a block fills by tensor copies and others empty (Gluon)."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

__all__ = ["ring_barriers"]


@gluon.jit
def ring_barriers(STAGES: gl.constexpr):
    """(full, empty), [STAGES] each: a stage's copies have landed; it may be filled again."""
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=1)
        mbarrier.init(empty.index(s), count=1)
    fence_async_shared()
    return full, empty
