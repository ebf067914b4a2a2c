"""From a graph and its plan to a packaged module: the stages that emit code, and the writer of the file."""
