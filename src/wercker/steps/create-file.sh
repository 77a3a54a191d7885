if [ -e "$WERCKER_CREATE_FILE_FILENAME" ] && [ "${WERCKER_CREATE_FILE_OVERWRITE:-false}" != true ]; then
  echo "create-file: $WERCKER_CREATE_FILE_FILENAME exists; set overwrite: true to replace it" >&2
  exit 1
fi
mkdir -p "$(dirname "$WERCKER_CREATE_FILE_FILENAME")"
printf '%s' "$WERCKER_CREATE_FILE_CONTENT" > "$WERCKER_CREATE_FILE_FILENAME"
