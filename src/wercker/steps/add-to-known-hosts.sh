mkdir -p "$HOME/.ssh"
chmod 700 "$HOME/.ssh"
found="$(ssh-keyscan -p "${WERCKER_ADD_TO_KNOWN_HOSTS_PORT:-22}" \
  -t "${WERCKER_ADD_TO_KNOWN_HOSTS_TYPE:-ed25519,ecdsa,rsa}" "$WERCKER_ADD_TO_KNOWN_HOSTS_HOSTNAME" 2>/dev/null)"
if [ -z "$found" ]; then
  echo "add-to-known_hosts: $WERCKER_ADD_TO_KNOWN_HOSTS_HOSTNAME shows no key" >&2
  exit 1
fi
if [ -z "${WERCKER_ADD_TO_KNOWN_HOSTS_FINGERPRINT:-}" ]; then
  echo "add-to-known_hosts: the key is trusted as it came; give fingerprint to check it" >&2
  printf '%s\n' "$found" >> "$HOME/.ssh/known_hosts"
else
  file="$(mktemp)"
  printf '%s\n' "$found" | while IFS= read -r line; do
    printf '%s\n' "$line" > "$file.one"
    case "$(ssh-keygen -lf "$file.one"; ssh-keygen -E md5 -lf "$file.one")" in
      *"$WERCKER_ADD_TO_KNOWN_HOSTS_FINGERPRINT"*) printf '%s\n' "$line" >> "$file" ;;
    esac
  done
  if [ ! -s "$file" ]; then
    echo "add-to-known_hosts: no key of $WERCKER_ADD_TO_KNOWN_HOSTS_HOSTNAME has the fingerprint" >&2
    exit 1
  fi
  cat "$file" >> "$HOME/.ssh/known_hosts"
  rm -f "$file" "$file.one"
fi
