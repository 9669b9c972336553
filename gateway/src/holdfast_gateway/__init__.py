"""The OpenAI-compatible front: keys, policy, metering."""
