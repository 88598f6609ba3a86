"""The files that a tokenizer is kept in, each format read strictly and written whole."""
