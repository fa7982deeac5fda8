package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"

	"marathon-gateway/app"
)

// apiError is an answer of the API that is not a success, with Marathon's words.
type apiError struct {
	status      int
	Message     string          `json:"message"`
	Details     []app.Violation `json:"details,omitempty"`
	Deployments []deploymentRef `json:"deployments,omitempty"`
}

type deploymentRef struct {
	ID string `json:"id"`
}

func (e *apiError) Error() string { return e.Message }

func notFound(format string, args ...any) error {
	return &apiError{status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}

func noApp(id string) error { return notFound("App '%s' does not exist", id) }

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	var syntax *app.SyntaxError
	var invalid *app.InvalidError
	var known *apiError
	switch {
	case errors.As(err, &known):
	case errors.As(err, &syntax):
		known = &apiError{status: http.StatusBadRequest, Message: "Invalid JSON", Details: syntax.Details}
	case errors.As(err, &invalid):
		known = &apiError{status: http.StatusUnprocessableEntity, Message: "Object is not valid", Details: invalid.Details}
	default:
		log.Printf("API: %v", err)
		known = &apiError{status: http.StatusInternalServerError, Message: err.Error()}
	}
	reply(w, known.status, known)
}

func reply(w http.ResponseWriter, status int, body any) {
	if t, ok := body.(text); ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, string(t))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status == http.StatusNoContent {
		return
	}
	_ = json.NewEncoder(w).Encode(body) // a client that is gone reads nothing
}
