"""What is wrong with an installation, or with an endpoint that streams, and the line that fixes it.

`installation` reads versions. `probe` and `survey` measure an endpoint; `diagnosis` says what the measurements mean,
in rules that do no I/O; `remedies` are the lines of configuration.
"""
