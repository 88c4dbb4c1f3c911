"""A speech encoder, a projector and a language model as one recogniser (SLAM-ASR)."""
