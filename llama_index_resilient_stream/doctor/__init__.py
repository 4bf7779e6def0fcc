"""Finds what is wrong with an installation, a streaming endpoint or a provider, and the line that fixes it.

`installation` reads versions. `endpoint` measures an endpoint as its readers see it: `plan` and `probe` send requests,
`diagnosis` says what the measurements mean, in rules that do no I/O, and `remedies` are the lines of configuration.
`provider` asks a model's API how it ends and continues its streams.
"""
