"""AWS Lambda's API in front of `cloudpilot.functions`: its paths, its signatures, its formats."""
