"""Families of networks as they come from torchvision, timm and packages for one application: exported, compiled, compared.

    python -m benchmarks.families list                       # names
    python -m benchmarks.families check [NAME|PATTERN ...]   # export, compile and compare what has no row yet
    python -m benchmarks.families table                      # write docs/zoo.md from the rows

Needed is the extra [zoo], and for applications their packages; what is not installed is left out. torchvision's compiled operators must
match the build of torch, so that it rarely loads beside a CPU build: `torchvision_models` gives the few names that it looks for at import a
definition in Python, and nothing else is needed to build its networks.
"""
