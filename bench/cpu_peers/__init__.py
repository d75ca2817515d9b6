"""End-to-end speed on the CPU beside Hugging Face transformers and llama.cpp: `python -m bench.cpu_peers --help`."""
