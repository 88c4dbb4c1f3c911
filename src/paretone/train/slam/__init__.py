"""Training of speech LLMs: a recipe in, a run's folder out."""
