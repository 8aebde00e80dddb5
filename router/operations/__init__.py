"""Operations of the API, one file each, named after the action: validate, route, reply."""
