"""The serving runtime: an artifact and a checkpoint in, tokens out. Imports no compiler."""
