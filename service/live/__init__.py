"""Speech that is transcribed while it is spoken: sessions that outlive their connections."""
