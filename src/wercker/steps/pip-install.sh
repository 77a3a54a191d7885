pip="${WERCKER_PIP_INSTALL_PIP_COMMAND:-pip}"
if [ -n "${WERCKER_PIP_INSTALL_PACKAGES_LIST:-}" ]; then
  $pip install ${WERCKER_PIP_INSTALL_EXTRA_ARGS:-} $WERCKER_PIP_INSTALL_PACKAGES_LIST
fi
file="${WERCKER_PIP_INSTALL_REQUIREMENTS_FILE:-requirements.txt}"
if [ -f "$file" ]; then
  $pip install ${WERCKER_PIP_INSTALL_EXTRA_ARGS:-} -r "$file"
elif [ -n "${WERCKER_PIP_INSTALL_REQUIREMENTS_FILE:-}" ]; then
  echo "pip-install: $file does not exist" >&2
  exit 1
fi
