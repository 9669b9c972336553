"""The lab: sealed Debian hosts on this machine, to rehearse a bundle before it crosses the gap."""
