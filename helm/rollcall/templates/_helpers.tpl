{{- define "rollcall.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "rollcall" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-rollcall" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rollcall.selector" -}}
app.kubernetes.io/name: rollcall
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rollcall.labels" -}}
{{ include "rollcall.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The names of the stages that are on, as a YAML map of name to subcommand. */}}
{{- define "rollcall.stages" -}}
{{- if .Values.collector.enabled }}
collector: collect
{{- end }}
{{- if .Values.mapper.enabled }}
mapper: map
{{- end }}
{{- end -}}

{{/* Name and labels of what belongs to a component: a dict with root and name. */}}
{{- define "rollcall.metadata" -}}
name: {{ include "rollcall.fullname" .root }}-{{ .name }}
labels:
  {{- include "rollcall.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "rollcall.componentSelector" -}}
{{ include "rollcall.selector" .root }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* The service account of a component: a dict with root, name and the component's values. */}}
{{- define "rollcall.serviceAccountName" -}}
{{- $account := .values.serviceAccount -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if $account.create -}}
{{- include "rollcall.fullname" .root }}-{{ .name -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* A duration as the configuration has it (30s, 1m 30s, 1h) in whole seconds, rounded up. */}}
{{- define "rollcall.seconds" -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+ ?[a-z]+" . -1 -}}
{{- $number := regexFind "[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $factor := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit -}}
{{- $milliseconds = add $milliseconds (mul $number $factor) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{/* How long a pod has to end: above the transaction timeout, so that a commit under way can be waited for. */}}
{{- define "rollcall.gracePeriod" -}}
{{- $timeout := include "rollcall.seconds" (.Values.config.kafka.transaction_timeout | default "30s") | int -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add $timeout 15 -}}
{{- else -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- if le $grace $timeout -}}
{{- fail (printf "terminationGracePeriodSeconds: %d s are not above config.kafka.transaction_timeout (%d s); leave it out, or raise it" $grace $timeout) -}}
{{- end -}}
{{- $grace -}}
{{- end -}}
{{- end -}}

{{/* What belongs to a hook before the release: a copy of its own, gone when the Job is done. */}}
{{- define "rollcall.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: "-5"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* The Secret with variables: the existing one, or the one that is made (a dict with root and its name made), or none. */}}
{{- define "rollcall.secretName" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $secrets.existing | default (ternary .made "" (not (empty $secrets.values))) -}}
{{- end -}}
