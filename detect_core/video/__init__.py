"""From a video file to sampled frames and face-sized crops, with every foreign byte handled in a sandboxed child."""
