"""Bytes -> waveform -> windows -> log-mel."""
