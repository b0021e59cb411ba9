{{/*
The spec of every pod: a dict with root, name and values of its component, args, config and secret (their names),
serviceAccount, restartPolicy, and as text: env, ports, probes.
*/}}
{{- define "rollcall.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
# Variables for each Service of the namespace would be taken for keys of the configuration.
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ include "rollcall.gracePeriod" .root }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: {{ .name }}
    image: "{{ $values.image.repository }}:{{ $values.image.tag | default .root.Chart.AppVersion }}"
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ concat .args (list "--config" "/etc/rollcall/rollcall.yaml") | toJson }}
    env:
      # Stable over restarts, so that a pod's first transaction ends what its predecessor left open.
      - name: ROLLCALL_INSTANCE_ID
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      {{- with .env }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .secret }}
    envFrom:
      - secretRef:
          name: {{ . }}
    {{- end }}
    {{- with .ports }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .probes }}
    {{- . | nindent 4 }}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    resources:
      {{- toYaml .values.resources | nindent 6 }}
    volumeMounts:
      - name: config
        mountPath: /etc/rollcall
        readOnly: true
      {{- with .values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ .config }}
  {{- with .values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
