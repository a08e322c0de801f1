{{/* Labels of everything of a component. Takes a dict: root, component. */}}
{{- define "dialer.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* What a component is selected by. */}}
{{- define "dialer.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Secrets of a component: variables' names, a blank between. The pepper and the master key reach one only. */}}
{{- define "dialer.secrets" -}}
{{- if eq .component "dialer" -}}
LIVEKIT_API_SECRET BRIEF_KEY DIALER_PEPPER DIALER_MASTER_KEY DIALER_API_KEYS
{{- else if eq .component "agent" -}}
LIVEKIT_API_SECRET BRIEF_KEY DEEPGRAM_API_KEY AGENT_API_KEY TWILIO_AUTH_TOKEN VAULT_TOKEN DIALER_RECORDING_CREDENTIALS DIALER_API_KEY
{{- else -}}
DIALER_API_KEYS
{{- end -}}
{{- end -}}

{{/* Annotations of a pod: Vault's injector writes each secret to a file of its own. */}}
{{- define "dialer.annotations" -}}
{{- if eq .root.Values.secrets.source "vault" }}
vault.hashicorp.com/agent-inject: "true"
vault.hashicorp.com/agent-pre-populate-only: "true"
vault.hashicorp.com/role: {{ .root.Values.secrets.vault.role | quote }}
{{- $path := .root.Values.secrets.vault.path }}
{{- range splitList " " (include "dialer.secrets" .) }}
vault.hashicorp.com/agent-inject-secret-{{ . }}: {{ $path | quote }}
vault.hashicorp.com/agent-inject-template-{{ . }}: |
  {{ printf "{{- with secret %q -}}{{ with index .Data.data %q }}{{ . }}{{ end }}{{- end -}}" $path . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Environment of a container: settings of all, its own, its secrets. Takes root, component, own. */}}
{{- define "dialer.env" -}}
{{- range $name, $value := .root.Values.settings }}
- {name: {{ $name }}, value: {{ required (printf "settings.%s must be set" $name) $value | quote }}}
{{- end }}
{{- range $name, $value := .own.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- $secrets := .root.Values.secrets }}
{{- /* There only where what they open is used. */}}
{{- $optional := list "DEEPGRAM_API_KEY" "AGENT_API_KEY" "TWILIO_AUTH_TOKEN" "VAULT_TOKEN" "DIALER_RECORDING_CREDENTIALS" "DIALER_API_KEY" }}
{{- range splitList " " (include "dialer.secrets" .) }}
{{- if eq $secrets.source "vault" }}
- {name: {{ . }}_FILE, value: /vault/secrets/{{ . }}}
{{- else }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $secrets.existing }}, key: {{ . }}, optional: {{ has . $optional }}}}}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every pod has. */}}
{{- define "dialer.pod" -}}
serviceAccountName: {{ .root.Values.serviceAccount.name }}
# Kubernetes' service links would put names like DIALER_… into the environment, which the settings refuse.
enableServiceLinks: false
automountServiceAccountToken: {{ eq .root.Values.secrets.source "vault" }}
terminationGracePeriodSeconds: {{ .own.terminationGracePeriodSeconds }}
securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every container has. */}}
{{- define "dialer.container" -}}
name: {{ .component }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
ports:
  - {name: http, containerPort: {{ .own.port }}}
resources:
  {{- toYaml .own.resources | nindent 2 }}
{{- end -}}
