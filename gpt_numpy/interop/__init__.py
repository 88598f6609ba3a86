"""Other programs' model files, in and out: Hugging Face folders, safetensors, llm.c."""
