"""The rules, pure: standard library only, no clock, no I/O. Facts come in, decisions go out."""
