"""The SDK's logic, written once: coroutines that await nothing but `Pending`, for `Sandbox` and `AsyncSandbox` alike."""
