"""The holdfast command: site, bundle, survey, plan, converge, audit, lab."""
