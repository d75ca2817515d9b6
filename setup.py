"""Package `oi`: the folders of this repository as `oi.ir`, `oi.codegen`, `oi.runtime`, `oi.models`."""

from setuptools import setup

PACKAGES = {
    "oi.ir": "ir",
    "oi.ir.ops": "ir/ops",
    "oi.ir.reference": "ir/reference",
    "oi.models": "models",
    "oi.codegen": "codegen",
    "oi.codegen.passes": "codegen/passes",
    "oi.codegen.cpu": "codegen/cpu",
    "oi.codegen.cpu.kernels": "codegen/cpu/kernels",
    "oi.codegen.cuda": "codegen/cuda",
    "oi.codegen.cuda.kernels": "codegen/cuda/kernels",
    "oi.codegen.cuda.tuning": "codegen/cuda/tuning",
    "oi.runtime": "runtime",
    "oi.runtime.device": "runtime/device",
    "oi.runtime.device.cuda": "runtime/device/cuda",
    "oi.runtime.http": "runtime/http",
}

SERVE = [
    "aiohttp==3.14.5",
    "fastokens==0.3.5",
    "jinja2==3.1.6",
    "msgspec==0.22.0",
    "numpy==2.4.6",
    "prometheus-client==0.26.0",
    "tokenizers==0.23.3",
]
CUDA = ["cuda-bindings>=12.9,<14"]  # that of the driver: 12 or 13
COMPILE = ["apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.15.post2", "rich==15.0.0", "triton==3.6.0"]
HUB = ["huggingface-hub==2.4.0"]
# torch for GPUs pins a triton: 2.11's is ours. torch for CPUs has none, so that the last one may be taken.
REFERENCE = ["numba==0.68.1", "safetensors==0.8.0", "torch>=2.11,<2.14", "transformers==5.23.0"]
TEST = [
    *COMPILE,
    *REFERENCE,
    "hypothesis==6.170.15",
    "import-linter==2.16",
    "mypy==2.4.1",
    "openai==3.54.0",
    "psutil==7.2.2",
    "pytest==9.2.0",
    "pytest-benchmark==5.3.1",
    "pytest-timeout==2.4.0",
    "ruff==0.17.6",
    "schemathesis==4.32.5",
]
BENCH = [*TEST, "matplotlib==3.11.2"]

setup(
    name="oi",
    version="0.1.0",
    description="The leanest and fastest way to serve Qwen3",
    python_requires=">=3.11",
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={"oi.models": ["tiny/*"], "oi.codegen.cuda.tuning": ["*.json"], "oi.runtime.http": ["status.html"]},
    install_requires=SERVE,
    extras_require={"compile": COMPILE, "cuda": CUDA, "hub": HUB, "test": TEST, "bench": BENCH},
    entry_points={
        "console_scripts": ["oi-compile=oi.codegen.cli:main", "oi-run=oi.runtime.cli:main"],
    },
)
