"""Block formats: one module each, with its layout, its quantizer and its dequantizer; which tensor gets which."""
