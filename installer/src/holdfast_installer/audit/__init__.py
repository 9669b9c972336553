"""Observing controls on running hosts: control -> probes -> verdict and evidence."""
