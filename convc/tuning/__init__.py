"""Tuning: propose settings, build and check them in a child process, time them alone, and keep every answer in a log."""
