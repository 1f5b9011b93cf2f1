"""The endings of names that recordings have. For finding them in folders: what a file is, its
content tells."""

from __future__ import annotations

AUDIO_SUFFIXES = (
    # sound
    *(".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".awb", ".bwf"),
    *(".caf", ".dss", ".dts", ".ec3", ".eac3", ".flac", ".gsm", ".m2a", ".m4a", ".m4b", ".m4r"),
    *(".mka", ".mp1", ".mp2", ".mp3", ".mpa", ".mpc", ".mpga", ".nist", ".oga", ".ogg", ".opus"),
    *(".qcp", ".ra", ".rf64", ".snd", ".sph", ".spx", ".tta", ".voc", ".w64", ".wav", ".wave"),
    *(".weba", ".wma", ".wv"),
    # video with sound
    *(".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ogx", ".qt", ".rm", ".ts", ".vob"),
    *(".webm", ".wmv"),
)
