"""The file formats of tokenizers, each read strictly and written whole."""
