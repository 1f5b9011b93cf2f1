"""Encoders whose frames say their own symbols (CTC): wav2vec 2.0, HuBERT, and conformers of it."""
