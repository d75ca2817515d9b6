import platform

from oi.runtime.host_cpu import cpu_features, describe, host_cpu, parse_cpuinfo

V2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def test_levels_of_x86() -> None:
    assert describe("x86_64", frozenset(["fpu", "sse2"])).mcpu == "x86-64"
    assert describe("x86_64", frozenset(V2.split())).mcpu == "x86-64-v2"
    assert describe("x86_64", frozenset(V3.split())).mcpu == "x86-64-v3"
    assert describe("x86_64", frozenset(V4.split())).mcpu == "x86-64-v4"


def test_a_level_needs_all_its_flags_and_those_below() -> None:
    assert describe("x86_64", frozenset(V3.split()) - {"fma"}).mcpu == "x86-64-v2"
    assert describe("x86_64", frozenset(V4.split()) - {"avx2"}).mcpu == "x86-64-v2"


def test_features_are_those_that_kernels_may_use() -> None:
    cpu = describe("x86_64", frozenset(f"{V4} avx512_bf16 ht hypervisor".split()))
    assert set(cpu.features) == set(V4.split())
    assert describe("aarch64", frozenset(["asimd", "crc32"])).features == ("asimd",)


def test_flags_are_those_of_every_processor() -> None:
    text = "processor : 0\nflags\t\t: fpu avx2 amx\n\nprocessor : 1\nflags\t\t: fpu avx2\n"
    assert parse_cpuinfo(text) == {"fpu", "avx2"}
    assert parse_cpuinfo("Features\t: asimd fp\n") == {"asimd", "fp"}
    assert parse_cpuinfo("") == frozenset()


def test_this_machine() -> None:
    assert host_cpu().arch == platform.machine()
    assert set(host_cpu().features) <= cpu_features()
