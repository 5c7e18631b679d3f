"""Text about clips: captions, and how well a visual caption agrees with what is heard."""
