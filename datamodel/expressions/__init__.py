"""DynamoDB's expression language: text to checked syntax tree to evaluation, all pure and cached."""
