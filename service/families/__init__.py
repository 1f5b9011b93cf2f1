"""Families of models as the engine sees them: Whisper, CTC, and the fake."""
