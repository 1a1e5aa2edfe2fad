"""Fuzzing: every reader turns any bytes into a result or one MinisslError."""
