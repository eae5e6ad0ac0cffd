"""AWS Lambda's API: functions are kept, and called inside sandboxes through Lambda's own runtime interface."""
