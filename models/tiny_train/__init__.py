"""How the bundled checkpoint `models/tiny` was trained (`python -m models.tiny_train --help`)."""
