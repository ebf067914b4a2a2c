# TVM ships no usable types: what its functions are annotated with rejects the calls in its own documentation.
from typing import Any

def __getattr__(name: str) -> Any: ...
