"""The same job written for other task queues of the Python world: to be measured side by side, never shipped."""
