# The key pair of Wercker was in NAME_PRIVATE and NAME_PUBLIC.
case "$WERCKER_ADD_SSH_KEY_KEYNAME" in
  '' | [0-9]* | *[!A-Za-z0-9_]*)
    echo "add-ssh-key: keyname must be of letters, digits and _" >&2
    exit 1
    ;;
esac
eval "key=\${${WERCKER_ADD_SSH_KEY_KEYNAME}_PRIVATE:-}"
if [ -z "$key" ]; then
  echo "add-ssh-key: ${WERCKER_ADD_SSH_KEY_KEYNAME}_PRIVATE is not set" >&2
  exit 1
fi
mkdir -p "$HOME/.ssh"
chmod 700 "$HOME/.ssh"
file="$HOME/.ssh/id_windlass_$WERCKER_ADD_SSH_KEY_KEYNAME"
# Keys were kept on one line, with \n for each line break.
(umask 077; printf '%b\n' "$key" > "$file")
{
  echo "Host ${WERCKER_ADD_SSH_KEY_HOST:-*}"
  echo "  IdentityFile $file"
} >> "$HOME/.ssh/config"
chmod 600 "$HOME/.ssh/config"
