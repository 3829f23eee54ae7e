"""Models on the Hugging Face hub as sources."""
