"""Ways into an `ir.Graph`. Nothing is imported here, so that the DSL costs no onnx: use `convc.frontend.onnx.from_onnx`."""
