"""Layer 1: compact students, their ONNX export and the CPU runtime. Never imports teachers."""
