tell_slack() {
  result="${WERCKER_RESULT:-passed}"
  if [ "${WERCKER_SLACK_NOTIFIER_NOTIFY_ON:-}" = failed ] && [ "$result" = passed ]; then return 0; fi
  if [ -n "${WERCKER_SLACK_NOTIFIER_BRANCH:-}" ] && [ "$WERCKER_SLACK_NOTIFIER_BRANCH" != "${WERCKER_GIT_BRANCH:-}" ]; then
    return 0
  fi
  text="run ${WERCKER_RUN_NAME:-} of ${WERCKER_GIT_REPOSITORY:-this pipeline} ${WERCKER_GIT_BRANCH:-} has $result"
  if [ -n "${WERCKER_FAILED_STEP_DISPLAY_NAME:-}" ]; then text="$text at step $WERCKER_FAILED_STEP_DISPLAY_NAME"; fi
  # Backslashes and quotes of JSON; control characters are none of these values'.
  escaped() { printf '%s' "$1" | sed 's/[\\"]/\\&/g' | tr -d '\000-\037'; }
  body="{\"text\": \"$(escaped "$text")\", \"username\": \"$(escaped "${WERCKER_SLACK_NOTIFIER_USERNAME:-windlass}")\""
  if [ -n "${WERCKER_SLACK_NOTIFIER_CHANNEL:-}" ]; then
    body="$body, \"channel\": \"#$(escaped "${WERCKER_SLACK_NOTIFIER_CHANNEL#\#}")\""
  fi
  # The address is a credential: it is not an argument, which others could see.
  printf 'url = "%s"\n' "$WERCKER_SLACK_NOTIFIER_URL" |
    curl --config - --silent --show-error --fail --max-time 20 -H 'Content-Type: application/json' --data "$body}" >/dev/null
}
tell_slack
